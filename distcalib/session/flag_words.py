"""Words of a command that is shown, to be pasted into a shell."""


def flag_words(flag: str, value: object) -> tuple[str, ...]:
    """A flag with its value, which may begin with a dash."""
    return (f"{flag}={value}",) if str(value).startswith("-") else (flag, str(value))
