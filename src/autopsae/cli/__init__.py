"""The command line: verbs with few flags and no logic. This room alone prints and shows progress."""
