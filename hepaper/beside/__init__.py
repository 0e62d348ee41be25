"""The paper's numbers beside this run's: what can be compared, by which rule, with which verdict."""
