"""Made-up verified answers: of every question right and wrong ones, worked and by several generators."""

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Edna")


def verified_answers(n=6, generators=("weak", "strong"), *, first=0):
    """Answers to n questions; each generator gives a right one to some and a wrong one to the others."""
    rows = []
    for i in range(first, first + n):
        name, boxes, each, gone = NAMES[i % len(NAMES)], i + 3, 2 * i + 5, i + 1
        total, answer = boxes * each, boxes * each - gone
        question = f"{name} has {boxes} boxes of {each} pens each and gives {gone} away. How many pens are left?"
        for place, generator in enumerate(generators):
            right = (i + place) % 2 == 0
            final = answer if right else total + gone
            sign = "-" if right else "+"
            text = (
                f"{name} owns {boxes} * {each} = {total} pens in all the boxes together, says {generator}. "
                f"Some are given away, which leaves {total} {sign} {gone} = {final} pens.\n\nThe answer is {final}."
            )
            row = {"id": f"file-{i}", "generator": generator, "question": question, "prediction": text}
            rows.append({**row, "final": str(final), "answer": str(answer), "correct": int(right)})
    return rows


def option_answers():
    """A right and a wrong answer to two questions with options."""
    rows = []
    for question, right, wrong in (("Which gas do plants take in?", "B", "A"), ("Which metal is liquid?", "C", "B")):
        question += "\nA. oxygen\nB. carbon dioxide\nC. mercury\nD. gold"
        for letter in (right, wrong):
            text = f"We refer to what is known about nature, and this leaves only one option to choose: ({letter}). "
            text += f"It is the one that schoolbooks name in their first chapters. The answer is ({letter})."
            row = {"generator": "g", "question": question, "prediction": text, "final": letter, "answer": right}
            rows.append({**row, "correct": int(letter == right), "domain": "science"})
    return rows
