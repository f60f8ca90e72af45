"""The commands of the command line, one file each (`phaselaw.cli.Command`).

They parse, call `phaselaw.measure` or `phaselaw.api`, and print.
"""
