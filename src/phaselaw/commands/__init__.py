"""The commands of the command line, one file each (`phaselaw.cli.Command`): they parse, call `phaselaw.api`, print."""
