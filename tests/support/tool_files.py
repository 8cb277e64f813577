"""Small files as other tools write them, and the pairs that they hold."""

import csv
import io
import json

QUESTION, ANSWER, OTHER = "What is 2 + 2?", "2 + 2 = 4, so the answer is 4.", "It is five."
PAIR = {"question": QUESTION, "prediction": ANSWER}
WORSE = {"question": QUESTION, "prediction": OTHER}
SYSTEM = "Answer briefly."
ASKED = [{"role": "user", "content": QUESTION}]
SAID = [{"role": "assistant", "content": ANSWER}]
TURNS = [
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello! What shall I reckon?"},
    {"role": "user", "content": QUESTION},
]
TALK = {
    "question": f"User: Hello.\n\nAssistant: Hello! What shall I reckon?\n\nUser: {QUESTION}",
    "question_turns": TURNS,
    "prediction": ANSWER,
}
CALL = [
    {"role": "system", "content": SYSTEM},
    *ASKED,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "4"},
    {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]},
]
CALLED_TURNS = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": 'Tool call: add({"a": 2, "b": 2})'},
    {"role": "user", "content": "Tool result: 4"},
]
CALLED = {
    "question": "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in CALLED_TURNS),
    "question_turns": CALLED_TURNS,
    "prediction": ANSWER,
}


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(*rows):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows(rows)
    return "\ufeff" + text.getvalue()


LM_EVAL = {
    "doc_id": 0,
    "doc": {"question": QUESTION, "answer": "2 + 2 = <<2+2=4>>4\n#### 4"},
    "target": "4",
    "arguments": {"gen_args_0": {"arg_0": f"Question: {QUESTION}\nAnswer:", "arg_1": {"until": ["Question:"]}}},
    "resps": [[ANSWER]],
    "filtered_resps": ["4"],
    "filter": "strict-match",
    "metrics": ["exact_match"],
    "doc_hash": "a",
    "prompt_hash": "b",
    "target_hash": "c",
    "exact_match": 1.0,
}
INSPECT = {
    "version": 2,
    "status": "success",
    "eval": {"task": "sums", "model": "openai/gpt-4o"},
    "samples": [
        {
            "id": 1,
            "epoch": 1,
            "input": QUESTION,
            "target": "4",
            "messages": [
                {"id": "m1", "content": QUESTION, "source": "input", "role": "user"},
                {
                    "id": "m2",
                    "content": [{"type": "reasoning", "reasoning": "Two and two."}, {"type": "text", "text": ANSWER}],
                    "source": "generate",
                    "role": "assistant",
                    "model": "gpt-4o",
                },
            ],
            "output": {
                "model": "gpt-4o",
                "choices": [{"message": {"content": ANSWER, "role": "assistant"}, "stop_reason": "stop"}],
            },
            "scores": {"match": {"value": "C", "answer": "4"}},
        }
    ],
}
PROMPTFOO = {
    "evalId": "eval-1",
    "results": {
        "version": 3,
        "timestamp": "2026-11-28T10:00:00Z",
        "prompts": [{"raw": "{{question}}", "label": "{{question}}"}],
        "results": [
            {
                "promptIdx": 0,
                "testIdx": 0,
                "vars": {"question": QUESTION},
                "prompt": {"raw": QUESTION, "label": "{{question}}"},
                "provider": {"id": "openai:gpt-4o", "label": ""},
                "response": {"output": ANSWER, "tokenUsage": {"total": 20}},
                "success": True,
                "score": 1,
                "gradingResult": {"pass": True, "score": 1, "reason": "ok"},
            }
        ],
        "stats": {"successes": 1},
    },
    "config": {},
}
LABEL_STUDIO = {
    "id": 7,
    "data": {"prompt": QUESTION, "response": ANSWER},
    "annotations": [
        {
            "id": 11,
            "completed_by": 1,
            "was_cancelled": False,
            "result": [
                {"id": "r", "from_name": "rating", "to_name": "response", "type": "rating", "value": {"rating": 4}},
                {
                    "id": "s",
                    "from_name": "polite",
                    "to_name": "response",
                    "type": "choices",
                    "value": {"choices": ["yes"]},
                },
            ],
        }
    ],
    "predictions": [],
    "project": 1,
}
ARGILLA = {
    "id": "0e1f",
    "fields": {"instruction": QUESTION, "response": ANSWER},
    "metadata": {"source": "x"},
    "suggestions": {},
    "responses": {"rating": [{"value": 4, "user_id": "u1"}, {"value": 5, "user_id": "u2"}]},
    "vectors": {},
    "status": "completed",
    "_server_id": "s",
}
BATCH = {
    "id": "batch_req_1",
    "custom_id": "request-1",
    "response": {
        "status_code": 200,
        "request_id": "q",
        "body": {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        },
    },
    "error": None,
}
REQUEST = {
    "custom_id": "request-1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "gpt-4o", "messages": ASKED},
}
SHAREGPT = {
    "id": "x_0",
    "conversations": [
        {"from": "human" if turn["role"] == "user" else "gpt", "value": turn["content"]} for turn in (*TURNS, *SAID)
    ],
}
ALPACA = {"instruction": "Reckon.", "input": QUESTION, "output": ANSWER}
JOINED = {"question": f"Reckon.\n\n{QUESTION}", "prediction": ANSWER}

# name -> file's name, its text, and the pairs that it holds
READ = {
    "TRL prompt and completion": ("trl.jsonl", lines({"prompt": ASKED, "completion": SAID}), [PAIR]),
    "TRL preferences": (
        "dpo.jsonl",
        lines({"prompt": ASKED, "chosen": SAID, "rejected": [{**SAID[0], "content": OTHER}]}),
        [PAIR, WORSE],
    ),
    "TRL preferences, implicit prompt": (
        "implicit.jsonl",
        lines({"chosen": [*ASKED, *SAID], "rejected": [*ASKED, {**SAID[0], "content": OTHER}]}),
        [PAIR, WORSE],
    ),
    "Axolotl chat_template": ("axolotl.jsonl", lines({"messages": CALL}), [CALLED]),
    "LLaMA-Factory": (
        "factory.json",
        json.dumps([{**ALPACA, "system": "", "history": [["Hello.", "Hello! What shall I reckon?"]]} | {"input": ""}]),
        [
            {
                "question": "User: Hello.\n\nAssistant: Hello! What shall I reckon?\n\nUser: Reckon.",
                "question_turns": [*TURNS[:2], {"role": "user", "content": "Reckon."}],
                "prediction": ANSWER,
            }
        ],
    ),
    "lm-eval": (
        "samples_gsm8k_2026.jsonl",
        lines(LM_EVAL, LM_EVAL | {"resps": [[ANSWER, OTHER]]}),
        [PAIR, PAIR, WORSE],
    ),
    "inspect_ai": ("log.json", json.dumps(INSPECT), [PAIR]),
    "ShareGPT": ("sharegpt.json", json.dumps([SHAREGPT]), [TALK]),
    "Alpaca": ("alpaca_data.json", json.dumps([ALPACA]), [JOINED]),
    "Label Studio": ("project-1.json", json.dumps([LABEL_STUDIO]), [PAIR]),
    "Argilla": ("records.json", json.dumps([ARGILLA]), [PAIR]),
    "promptfoo": ("output.json", json.dumps(PROMPTFOO), [PAIR]),
    "a spreadsheet": (
        "Book1.csv",
        table(["No.", "Question", "Model Answer", "Score"], [1, QUESTION, ANSWER, 4]),
        [PAIR],
    ),
    "completions": ("many.jsonl", lines({"prompt": QUESTION, "responses": [ANSWER, OTHER]}), [PAIR, WORSE]),
    "a joined batch": ("joined.jsonl", lines({**BATCH, "request": REQUEST["body"]}), [PAIR]),
}
GEMINI_ASKED = [{"role": "user", "parts": [{"text": QUESTION}]}]
GEMINI_SAID = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Hm.", "thought": True}, {"text": ANSWER}]}}]
}
RATED = {  # of UltraFeedback
    "instruction": QUESTION,
    "completions": [
        {"model": name, "response": text, "overall_score": score, "annotations": {"helpfulness": {"Rating": "4"}}}
        for name, text, score in (("a", ANSWER, 8.5), ("b", OTHER, 3))
    ],
    "model": "several",
}
# more tools' files, each with the pairs that it holds; doors share what reads them
FURTHER = {
    "UltraFeedback": ("uf.jsonl", lines(RATED), [PAIR, WORSE]),
    "UltraFeedback, binarized": (
        "binarized.jsonl",
        lines(
            {
                **{"prompt": QUESTION, "chosen": [*ASKED, *SAID], "messages": [*ASKED, *SAID], "score_chosen": 8.5},
                "rejected": [*ASKED, {**SAID[0], "content": OTHER}],
            }
        ),
        [PAIR, WORSE],
    ),
    "Nectar": (
        "n.jsonl",
        lines({"prompt": QUESTION, "answers": [{"answer": ANSWER, "model": "a", "rank": 1}]}),
        [PAIR],
    ),
    "Gemini batch": (
        "gemini.jsonl",
        lines({"request": {"contents": GEMINI_ASKED}, "response": GEMINI_SAID}),
        [PAIR],
    ),
    "Bedrock batch": (
        "bedrock.jsonl",
        lines(
            {"recordId": "1", "modelInput": {"messages": ASKED}, "modelOutput": SAID[0]},
            {"recordId": "2", "modelInput": {"messages": ASKED}, "modelOutput": {"output": {"message": SAID[0]}}},
        ),
        [PAIR, PAIR],
    ),
    "LiteLLM log": ("log.jsonl", lines({"messages": ASKED, "response": {"choices": [{"message": SAID[0]}]}}), [PAIR]),
    "vLLM": ("vllm.jsonl", lines({"prompt": QUESTION, "outputs": [{"text": ANSWER}, {"text": OTHER}]}), [PAIR, WORSE]),
    "OpenAI preferences": (
        "pft.jsonl",
        lines(
            {
                **{"input": {"messages": ASKED, "tools": []}, "preferred_output": SAID},
                "non_preferred_output": [{**SAID[0], "content": OTHER}],
            }
        ),
        [PAIR, WORSE],
    ),
    "DeepEval": ("deepeval.json", json.dumps([{"input": QUESTION, "actual_output": ANSWER, "context": None}]), [PAIR]),
    "RewardBench 2": (
        "bench.jsonl",
        lines({"prompt": QUESTION, "chosen": [ANSWER], "rejected": [OTHER, OTHER], "num_correct": 1}),
        [PAIR, WORSE, WORSE],
    ),
    "Argilla 1": (
        "records_1.json",
        json.dumps([{"fields": ARGILLA["fields"], "responses": [{"status": "submitted", "values": {}}]}]),
        [PAIR],
    ),
    "Text Generation Inference": ("tgi.jsonl", lines({"inputs": QUESTION, "generated_text": ANSWER}), [PAIR]),
    "a table of Weights & Biases": (
        "table.json",
        json.dumps({"columns": ["prompt", "response", "score"], "data": [[QUESTION, ANSWER, 4]], "ncols": 3}),
        [PAIR],
    ),
}
REFUSED = {
    "TRL's steps": (
        "prm.jsonl",
        lines({"prompt": "q", "completions": ["a"], "labels": [True]}),
        "stepwise supervision",
    ),
    "OpenAssistant": ("tree.jsonl", lines({"message_tree_id": "t", "prompt": {}}), "the turns up to each reply"),
    "OpenAI batch output": ("batch_output.jsonl", lines(BATCH), "Join it with the requests: inspector peek OUTPUT"),
    "Axolotl segments": ("io.jsonl", lines({"segments": [{"label": True, "text": "a"}]}), "template-free segments"),
    "ambiguous columns": (
        "two.jsonl",
        lines({"prompt": "q", "response": "a", "output": "b"}),
        "--column question=prompt --column prediction=response or --column question=prompt --column prediction=output",
    ),
    "several readings": (
        "both.jsonl",
        lines({"prompt": "q", "response": "a", "messages": [*ASKED, *SAID]}),
        "--column messages=messages or",
    ),
    "AlpacaEval": (
        "compared.json",
        json.dumps([{"instruction": "q", "output_1": "a", "output_2": "b", "preference": 1}]),
        "inspector train FILE --responses output_1 output_2. Or name the one to score: --column prediction=output_1.",
    ),
    "an arena": (
        "battles.jsonl",
        lines({"conversation_a": [*ASKED, *SAID], "conversation_b": [*ASKED, *SAID], "winner": "tie"}),
        "--responses conversation_a conversation_b. Or name the one to score: --column messages=conversation_a.",
    ),
    "MT-Bench": ("model_answer.jsonl", lines({"question_id": 81, "choices": [{"turns": ["a"]}]}), "the turns of both"),
    "MT-Bench's judgments": (
        "judgment.jsonl",
        lines({"user_prompt": "q", "judgment": "Rating: [[8]]", "score": 8}),
        "Give the answers that were judged",
    ),
    "semicolons": ("Book2.csv", "Question;Answer\nq;a\n", "Save it with commas between columns"),
    "an inspect_ai archive": ("log.eval", "PK", "Write it as JSON: inspect log convert"),
    "a workbook": ("Book1.xlsx", "PK", "Save the sheet as CSV in UTF-8"),
}
UNREADABLE = {  # one row each, which no judge could read
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, *SAID]},
        "'image_url'",
    ),
    "no reply": ({"messages": ASKED}, "to end with the assistant's turn"),
    "an unknown role": ({"messages": [{"role": "narrator", "content": "x"}, *SAID]}, "a role of system"),
    "log-likelihoods": ({**LM_EVAL, "resps": [[["-1.5", "False"]], [["-2.5", "False"]]]}, "log-likelihoods of choices"),
    "no completions": ({"prompt": QUESTION, "responses": []}, "its list of them is empty"),
}
