"""What an adversary would do: requests that are meant to do harm. Each is here so that a defence can be measured."""
