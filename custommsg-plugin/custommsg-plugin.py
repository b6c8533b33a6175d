#!/usr/bin/env python3
"""The gateway as a plugin that lightningd starts: `reckless install custommsg-plugin`.

reckless looks for a folder with a plugin's name, for a file in it with the same name, and for what that needs in
requirements.txt. It copies the folder and nothing around it, so all else comes from the package.
"""

import sys

from custommsg_server.__main__ import main

sys.argv[1:] = ["plugin"]
main()
