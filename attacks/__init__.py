DECLARED: dict[str, str] = {}
