#!/bin/sh
# Install the browser that tests/test_report/test_page.py opens
# reports in, if there is none: Debian's Chromium where apt-get can, else the
# one that playwright brings.
#
#   tests/install_browser.sh [PYTHON]     which has playwright, e.g.
#                                         .venv/bin/python; default: python3
set -eu
python=${1:-python3}

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then
        exit 0
    fi
done
if "$python" - <<'EOF'
from pathlib import Path

from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    raise SystemExit(not Path(playwright.chromium.executable_path).is_file())
EOF
then
    exit 0
fi

# Other systems' archives have no chromium, or one that is a snap: go on then.
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update &&
    DEBIAN_FRONTEND=noninteractive apt-get install --yes \
        --no-install-recommends chromium fonts-liberation
then
    exit 0
fi
exec "$python" -m playwright install --with-deps chromium
