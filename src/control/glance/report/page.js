"use strict";
// Filters the table of names, and unfolds the year of a name. The page says everything without it, too.
(() => {
    const rows = [...document.querySelectorAll("#rows > tr")];
    const tools = document.getElementById("tools");
    if (!tools) return;
    const find = document.getElementById("find"), found = document.getElementById("found");
    const day = 86400000, weeks = 53;
    const today = +document.querySelector("header time").dataset.today;
    const words = { g: "a version", d: "a damaged version", i: "an incomplete version" };

    function unfold(row) {
        if (row.nextElementSibling?.classList.contains("unfolded")) return row.nextElementSibling.remove();
        const days = [...row.dataset.days.matchAll(/([.gdi])(\d+)/g)].flatMap(([, mark, count]) => Array(+count).fill(mark));
        // Columns are weeks that begin on Monday; the last one has today. 1970-01-01 was a Thursday.
        const weekday = number => (number + 3) % 7, last = Math.floor((today + 3) / 7);
        let cells = "", month = -1;
        const months = [];
        days.forEach((mark, at) => {
            const number = today - days.length + 1 + at, column = Math.floor((number + 3) / 7) - last + weeks - 1;
            if (column < 0) return;
            const date = new Date(number * day);
            if (date.getUTCMonth() !== month && weekday(number) === 0) {
                month = date.getUTCMonth();
                // The name of a month needs three weeks.
                if (months.length && column - months.at(-1).column < 3) months.pop();
                months.push({ column, text: date.toLocaleString(undefined, { month: "short", timeZone: "UTC" }) });
            }
            const title = date.toISOString().slice(0, 10) + (words[mark] ? ": " + words[mark] : ": none");
            cells += `<rect class="${mark === "." ? "n" : mark}" x="${column}" y="${weekday(number) + 1.3}" width=".85" height=".85" rx=".1"><title>${title}</title></rect>`;
        });
        const unfolded = document.createElement("tr"), cell = unfolded.insertCell();
        unfolded.className = "unfolded";
        cell.colSpan = 6;
        cell.className = "year";
        const count = days.filter(mark => mark !== ".").length;
        cell.innerHTML = `<svg viewBox="0 0 ${weeks} 8.3" role="img" aria-label="The last year: versions on ${count} days">${months.map(({ column, text }) => `<text x="${column}" y="0.9">${text}</text>`).join("")}${cells}</svg>`;
        row.after(unfolded);
        cell.scrollLeft = cell.scrollWidth;
    }

    function filter() {
        const text = find.value.toLowerCase(), state = tools.querySelector("input[name=state]:checked").value;
        let count = 0;
        document.querySelectorAll(".unfolded").forEach(row => row.remove());
        document.querySelectorAll("[aria-expanded=true]").forEach(button => button.setAttribute("aria-expanded", "false"));
        for (const row of rows) {
            const shown = (!state || row.classList.contains(state)) && row.querySelector(".name").textContent.toLowerCase().includes(text);
            row.hidden = !shown;
            row.style.display = shown ? "" : "none";
            count += shown;
        }
        found.textContent = count === rows.length ? "" : `${count} of ${rows.length} names`;
    }

    for (const row of rows) {
        const name = row.querySelector(".name"), button = document.createElement("button");
        button.type = "button";
        button.textContent = name.textContent;
        button.title = "Show the year";
        button.setAttribute("aria-expanded", "false");
        button.addEventListener("click", () => {
            unfold(row);
            button.setAttribute("aria-expanded", String(button.getAttribute("aria-expanded") === "false"));
        });
        name.replaceChildren(button);
    }
    tools.hidden = false;
    tools.addEventListener("input", filter);
    document.addEventListener("keydown", event => {
        if (event.key === "/" && document.activeElement !== find && !event.ctrlKey && !event.metaKey && !event.altKey) {
            event.preventDefault();
            find.focus();
        } else if (event.key === "Escape" && document.activeElement === find) {
            find.value = "";
            filter();
        }
    });
})();
