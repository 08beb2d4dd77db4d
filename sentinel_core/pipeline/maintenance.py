"""Keep the store small: compact, let old data go, collect what nobody reads any more."""
