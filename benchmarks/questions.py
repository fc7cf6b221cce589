"""What the benchmarks ask the sample shop; none is a test conversation."""

QUESTIONS = (
    "How long do I have to send something back?",
    "Which payment methods do you take?",
    "Which countries do you ship to?",
    "How can I use a gift card?",
    "How do I get an invoice?",
    "Can I change my delivery address?",
    "How long is the warranty on the Otter bottle?",
    "How long does delivery to France take?",
)
