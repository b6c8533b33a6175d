"""The command line: `app` and `listen` have the commands, `show` and `lines` what they print."""
