"""Options that several verbs take, each said once."""
