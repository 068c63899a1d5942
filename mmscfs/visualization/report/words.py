# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What charts are called, and how each is read."""

# Scores of validations, the first of these that a run has being its own:
# their titles, and what makes them percent.
SCORES = {
    'knn/top1': ('k-NN accuracy', 1),
    'linear/top1': ('Top-1 accuracy', 1),
    'accuracy/top1': ('Top-1 accuracy', 1),
    'single-label/recall': ('Accuracy, mean of classes', 1),
    'svm/mAP': ('mAP of the classifiers', 1),
    'coco/bbox_mAP': ('Box AP', 100),
    'coco/segm_mAP': ('Mask AP', 100),
    'pascal_voc/mAP': ('Box AP', 100),
    'pascal_voc/AP50': ('Box AP50', 100),
}
CAPTIONS = {
    'knn/top1': (
        'How many validation images have most of their nearest training '
        'images, by the features alone, in their own class. Healthy: above '
        'chance from the first epochs on, then rising ever more slowly.'
    ),
    'accuracy/top1': 'Of the validation. Healthy: rising, then level.',
    'loss': (
        'The sum of all terms. Healthy: a fast fall, then a slow one. The '
        'targets move with the teacher, so that a level loss does not mean '
        'that nothing is learnt: see the scores.'
    ),
    'supervised_loss': (
        'The sum of all terms. Healthy: a fast fall, then a slow one.'
    ),
    'loss_dino': (
        'Cross-entropy between teacher and student on the last layer, in '
        'nats, times its weight in the loss. It begins near the shaded edge '
        'and must leave it.'
    ),
    'global': (
        'The global views of an image against each other, as seen by this '
        'layer.'
    ),
    'search': (
        'Local views against the features that the search found for them in '
        'the global map. Healthy: below the global term of the same layer, '
        'and falling.'
    ),
    'loss_': 'A term of the loss. Healthy: a fast fall, then a slow one.',
    'teacher_entropy': (
        'How many prototypes the teacher spreads an image over, in nats. '
        'Healthy: between the two shaded edges, falling slowly. At 0 all '
        'images share one prototype, at ln K all prototypes are alike; both '
        'are collapse.'
    ),
    'layer_entropy': 'The same of a search layer, over its own outputs.',
    'teacher_student_kl': (
        'How far the student is from the teacher, in nats. Healthy: falling '
        'at first, then level or rising, well above the shaded edge, in which '
        'nothing is left to predict.'
    ),
    'feature_std': (
        'How much the features of images differ, about 1 where they spread '
        'in all directions alike. Healthy: level or rising. Near 0 all '
        'images look alike to the network.'
    ),
    'center_norm': (
        'Length of the centre that is taken from the teacher’s outputs. '
        'Healthy: moving early, then level. Without an end to its growth the '
        'outputs drift.'
    ),
    'skipped': (
        'Share of steps that were left out, as their loss or gradient was '
        'not finite. Healthy: 0; with fp16 a few now and then. A run stops '
        'after 20 in a row.'
    ),
    'grad_norm': 'Healthy: level. Peaks come before a loss that diverges.',
    'lr': 'Healthy: as the schedule of the config wants it.',
    'weight_decay': 'As the schedule of the config wants it.',
    'teacher_temp': (
        'Lower is sharper. It rises while the prototypes settle, as a soft '
        'teacher collapses early and a sharp one stays coarse.'
    ),
    'teacher_momentum': (
        'Share of itself that the teacher keeps in a step: it comes to a '
        'rest as the value nears 1.'
    ),
    'time': (
        'The line is a whole step, the shaded part of it the wait for data. '
        'Healthy: hardly any wait; else more workers or faster storage help.'
    ),
    'images': 'Of all processes. Healthy: level.',
    'memory': 'The most that the device has held, of one process.',
}
TITLES = {
    'loss': 'Total loss',
    'loss_dino': 'Loss, last layer',
    'teacher_entropy': 'Teacher entropy',
    'teacher_student_kl': 'KL, teacher to student',
    'feature_std': 'Spread of features',
    'center_norm': 'Norm of the centre',
    'grad_norm': 'Norm of the gradient',
    'skipped': 'Skipped steps',
    'lr': 'Learning rate',
    'weight_decay': 'Weight decay',
    'teacher_temp': 'Teacher temperature',
    'teacher_momentum': 'Teacher momentum',
    'time': 'Time of a step',
    'memory': 'Memory',
}
UNITS = {
    'teacher_entropy': 'nats',
    'teacher_student_kl': 'nats',
    'loss_dino': 'nats',
    'time': 's',
    'memory': 'MiB',
}
