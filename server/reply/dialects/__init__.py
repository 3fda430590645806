"""The languages in which families write the arguments of a call: one module and class each."""
