"""Operations with hand-written forward and backward passes that take less time or memory than torch's."""
