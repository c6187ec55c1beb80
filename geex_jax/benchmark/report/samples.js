"use strict";
// Filters of the failing samples. Without scripts all of them are shown.
const form = document.querySelector(".filters");
if (form) {
  const samples = [...document.querySelectorAll(".sample")];
  const filters = [...form.querySelectorAll("[data-filter]")];
  const show = () => {
    let shown = 0;
    for (const sample of samples) {
      const fits = filters.every((filter) => {
        const wanted = filter.value.trim().toLowerCase();
        const value = sample.dataset[filter.dataset.filter].toLowerCase();
        return filter.type === "search" ? value.includes(wanted) : !wanted || value === wanted;
      });
      sample.hidden = !fits;
      shown += fits;
    }
    form.querySelector("output").textContent = `${shown} of ${samples.length}`;
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
}
