"""Where the query API's numbers come from: forecasts, their quality, models in production, ourselves, upstream."""
