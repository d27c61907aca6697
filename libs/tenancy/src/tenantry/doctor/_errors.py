"""Why the doctor could not look."""


class DoctorFailed(Exception):
    """The database could not be examined. The message says why, without a password in it."""
