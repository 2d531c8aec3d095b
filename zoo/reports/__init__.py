"""``zoo report``: a run's folder as one HTML page: its contents (``reading``), curves (``curves``), facts (``about``),
the page (``page``, from ``templates``)."""
