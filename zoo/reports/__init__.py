"""``zoo report``: a run's folder as one HTML page. What the folder says (``reading``), curves (``curves``), the page (``page``)."""
