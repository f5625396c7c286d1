"""Operations with a forward and backward pass of their own, because torch's take more time or memory."""
