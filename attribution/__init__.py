"""Why a value shifted: the training sentences behind each changed answer."""
