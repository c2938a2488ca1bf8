"""Draw records: the style that all charts share, three kinds of charts, and the files of a run."""
