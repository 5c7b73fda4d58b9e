#!/bin/sh
# Make the virtual environment DIR and install into it:
#
#     sh setup.sh DIR WHAT...        WHAT is what pip install is to be told, `.` for this checkout
#
# Needs Python 3.11 or newer as python3 (or named in $PYTHON) and a package index. The system's own Python is left as it is. A bare
# Debian keeps the part of Python that puts pip into environments in a package of its own: where it is missing, pip from outside
# does it, and where there is no pip either, the package python3-venv is installed, which takes root.
set -eu
python=${PYTHON:-python3}
dir=$1
shift

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alexinspect needs Python 3.11 or newer, and this is " + sys.version)'
if "$python" -c 'from ensurepip import version' 2>/dev/null; then
    "$python" -m venv "$dir"
elif "$python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --without-pip "$dir"
    "$python" -m pip --python "$dir/bin/python" install --quiet pip
else
    apt-get update
    apt-get install --yes python3-venv
    "$python" -m venv "$dir"
fi
echo '*' >"$dir/.gitignore"
"$dir/bin/python" -m pip install --quiet --upgrade 'pip>=25.1' # the first that knows dependency groups
"$dir/bin/python" -m pip install --quiet "$@"
