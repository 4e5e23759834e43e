//! The fault cases of the credits, each alone.
