// Narrows the list of cases; without scripts all of them stand there.
const words = document.getElementById("words");
const wrong = document.getElementById("wrong");
const cases = [...document.querySelectorAll("details.case")];
const shown = document.getElementById("shown");

function narrow() {
  const wanted = words.value.trim().toLowerCase();
  let count = 0;
  for (const one of cases) {
    const fits = (!wanted || one.textContent.toLowerCase().includes(wanted))
      && (!wrong.checked || one.dataset.right === "no");
    one.hidden = !fits;
    count += fits;
  }
  shown.textContent = `${count} shown`;
}

if (words) {
  words.closest(".tools").hidden = false;
  words.addEventListener("input", narrow);
  wrong.addEventListener("change", narrow);
  narrow();
}
