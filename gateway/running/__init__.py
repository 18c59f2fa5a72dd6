"""The processes of a running gateway: who starts, changes and stops what."""
