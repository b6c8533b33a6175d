"""The command `custommsg`. `app` and `receive` have its sub-commands, `show` and `lines` print."""
