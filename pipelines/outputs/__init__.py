"""What a job leaves: the exactly-once writer, provenance in the footer, exports."""
