"""Tables of results from one command: their cells, how these are run, and how tables are written."""

from scanmix.reproduce.running import run_table
from scanmix.reproduce.tables import TABLES, Cell, ResultTable, chosen_cells, find_cell, find_table

__all__ = ["TABLES", "Cell", "ResultTable", "chosen_cells", "find_cell", "find_table", "run_table"]
