"""The store: the only place that knows SQL writes; every transaction opens and closes here. It knows no HL7."""
