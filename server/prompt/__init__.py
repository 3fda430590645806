"""Messages to native prompt to tokens.

    template/           compiles and renders Jinja within limits
    messages/           probes what a template can express, shapes conversations to that
    guard/              tokenises so that no text of a request becomes a control token
    format_discovery/   finds a template's reply format
    families/           templates with data about models, the choice among them, a model's kind
    known_template.py   a template with its verdicts and reply format, without a model
    model_template.py   the same with a model's tokenizer and guard
    chat_model.py       all templates of a model: what a worker uses
    raw_prompt.py       prompts that need no template

``template`` imports none of the others, ``messages`` and ``guard`` only ``template``.
"""
