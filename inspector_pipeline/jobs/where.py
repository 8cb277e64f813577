"""Choose rows by an expression on their columns, such as `len(prediction) > 20 and source == 'web'`."""

import ast

from ..errors import DataFileError, SettingsError
from ..files.entries import Row

FUNCTIONS = {"len": len, "abs": abs, "min": min, "max": max, "int": int, "float": float, "str": str}


class Where:
    """A condition in Python's syntax: comparisons, `and`, `or`, `not`, `in`, arithmetic and a few functions.

    Columns are named as they are, or as `row['any name']`; a column that a row lacks is None. Nothing else of Python
    can be reached: simpleeval walks the expression's tree.

    Attributes:
        expression: As it was given.
        columns: The columns that it names.
        takes_all: Whether it may ask for any column.
        unseen: The named columns that no row had so far.

    Example:
        >>> Where("len(prediction) > 3")({"prediction": "four"})
        True
    """

    def __init__(self, expression: str) -> None:
        """Parse an expression.

        Raises:
            SettingsError: It is not one.
            DataFileError: The package simpleeval is missing.
        """
        try:
            import simpleeval
        except ModuleNotFoundError as error:
            raise DataFileError(
                "--where expects the package simpleeval. Run pip install 'inspector-pipeline[jobs]'."
            ) from error
        self.expression = expression
        self._evaluator = simpleeval.EvalWithCompoundTypes(functions=FUNCTIONS)
        no_answer = (TypeError, ValueError, ArithmeticError, LookupError, RecursionError)
        self._faults = (simpleeval.InvalidExpression, *no_answer)
        try:
            ast.parse(expression.strip(), mode="eval")  # simpleeval would ignore an assignment, and a second statement
            self._tree = self._evaluator.parse(expression)
        except (simpleeval.InvalidExpression, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise SettingsError(f"--where expects an expression such as len(prediction) > 20, but: {error}.") from error
        names = {node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)}
        self.takes_all = "row" in names
        self.columns = names - set(FUNCTIONS) - {"row"}
        self.unseen = set(self.columns)

    def __call__(self, row: Row) -> bool:
        """Say whether a row is chosen.

        Raises:
            DataFileError: It cannot be said, as for a comparison of a number with None.
        """
        self.unseen -= row.keys()
        self._evaluator.names = {**dict.fromkeys(self.columns), **row, "row": row}
        try:
            return bool(self._evaluator.eval(self.expression, previously_parsed=self._tree))
        except self._faults as error:
            raise DataFileError(f"--where cannot decide: {error}") from error
