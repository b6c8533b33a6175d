#!/usr/bin/env python3
"""The gateway as a plugin that lightningd starts: `reckless install custommsg-plugin`.

reckless looks for a folder with the name of the plugin, for a file of the same name in it, and for requirements.txt. It
copies nothing but that folder, so that everything else has to come from the package custommsg-server.
"""

import sys

from custommsg_server.__main__ import main

sys.argv[1:] = ["plugin"]
main()
