"""Where the installed package finds its built-in plug-ins: the top-level folders are mapped below this one."""
