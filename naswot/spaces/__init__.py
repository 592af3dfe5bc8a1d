"""Search spaces, one file each; found through the entry-point group ``naswot.spaces``."""
