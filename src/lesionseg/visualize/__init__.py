"""Pictures and the report page, drawn from what the evaluation wrote."""
