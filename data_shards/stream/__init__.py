"""The training stream: which rows make up an update, and how they are masked."""
