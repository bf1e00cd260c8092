#include "cli/report/page.h"

#include <fmt/format.h>

#include <algorithm>

namespace fathom::client {
namespace {

constexpr char kPageStyle[] = R"css(
:root{color-scheme:light dark;--bg:#fff;--ink:#1b1f24;--soft:#57606a;--rule:#d8dee4;
--card:#f6f8fa;--good:#1a7f37;--bad:#cf222e;
--p0:#0969da;--p1:#bc4c00;--p2:#1a7f37;--p3:#8250df;--p4:#bf3989;--p5:#57606a}
@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--ink:#e6edf3;--soft:#9198a1;--rule:#30363d;
--card:#161b22;--good:#3fb950;--bad:#f85149;
--p0:#58a6ff;--p1:#f0883e;--p2:#3fb950;--p3:#bc8cff;--p4:#f778ba;--p5:#9198a1}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1240px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:25px;line-height:1.25;margin:0}h2{font-size:18px;margin:34px 0 8px}
.sub{color:var(--soft);margin:4px 0 0}
p{margin:8px 0;max-width:84ch}
.verdict{border-left:4px solid;padding:8px 14px;background:var(--card);margin:18px 0;
font-weight:600}
.good{color:var(--good)}.bad{color:var(--bad)}
.verdict.good{border-color:var(--good)}.verdict.bad{border-color:var(--bad)}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13.5px;margin:10px 0}
th,td{padding:5px 11px;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top}
th{color:var(--soft);font-weight:600;white-space:nowrap}
td:first-child{white-space:nowrap}
td.n{text-align:right;white-space:nowrap}th.n{text-align:right}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:18px}
figure{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:14px}
figcaption{font-weight:600}figcaption span{display:block;font-weight:400;color:var(--soft);
font-size:13px}
.keys{font-size:13px;color:var(--soft);margin-top:4px}
.keys i{display:inline-block;width:14px;height:3px;vertical-align:middle;margin:0 5px 0 12px;
border-radius:2px}
.keys i:first-child{margin-left:0}
svg{width:100%;height:auto;display:block;margin-top:8px}
svg text{fill:var(--soft);font-size:12px}svg .point{font-size:11px}
.grid{stroke:var(--rule);stroke-width:1}polyline{fill:none;stroke-width:2.2;stroke-linejoin:round}
.s0{stroke:var(--p0)}.s1{stroke:var(--p1)}.s2{stroke:var(--p2)}.s3{stroke:var(--p3)}
.s4{stroke:var(--p4)}.s5{stroke:var(--p5)}
.f0{fill:var(--p0)}.f1{fill:var(--p1)}.f2{fill:var(--p2)}.f3{fill:var(--p3)}.f4{fill:var(--p4)}
.f5{fill:var(--p5)}
)css";

// Whether a cell is shown as a number: right-aligned.
bool IsNumber(const std::string& text) {
  if (text.empty() || text == "-") return true;
  return text.find_first_not_of("0123456789.,-+%k Ms") == std::string::npos &&
         text.find_first_of("0123456789") != std::string::npos;
}

const char* ClassOf(Mark mark) {
  switch (mark) {
    case Mark::kGood:
      return "good";
    case Mark::kBad:
      return "bad";
    case Mark::kNone:
      break;
  }
  return "";
}

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      case '\'':
        safe += "&#39;";
        break;
      default:
        safe += c;
    }
  }
  return safe;
}

Page::Page(std::string_view title, std::string_view subtitle) : title_(EscapeHtml(title)) {
  body_ = fmt::format("<h1>{}</h1>\n<p class=\"sub\">{}</p>\n", title_, EscapeHtml(subtitle));
}

void Page::AddHeading(std::string_view text) {
  body_ += fmt::format("<h2>{}</h2>\n", EscapeHtml(text));
}

void Page::AddText(std::string_view text) { body_ += fmt::format("<p>{}</p>\n", EscapeHtml(text)); }

void Page::AddVerdict(bool good, std::string_view text) {
  body_ +=
      fmt::format("<div class=\"verdict {}\">{}</div>\n", good ? "good" : "bad", EscapeHtml(text));
}

void Page::AddTable(const std::vector<std::string>& head,
                    const std::vector<std::vector<TableCellText>>& rows) {
  // A column is one of numbers if all of its cells are.
  std::vector<bool> numbers(head.size(), !rows.empty());
  for (const auto& row : rows) {
    for (size_t i = 0; i < std::min(row.size(), head.size()); ++i) {
      if (!IsNumber(row[i].text)) numbers[i] = false;
    }
  }
  body_ += "<div class=\"wide\"><table><tr>";
  for (size_t i = 0; i < head.size(); ++i) {
    body_ += fmt::format("<th{}>{}</th>", numbers[i] ? " class=\"n\"" : "", EscapeHtml(head[i]));
  }
  body_ += "</tr>\n";
  for (const auto& row : rows) {
    body_ += "<tr>";
    for (size_t i = 0; i < std::max(row.size(), head.size()); ++i) {
      const TableCellText cell = i < row.size() ? row[i] : TableCellText{};
      body_ +=
          fmt::format("<td class=\"{} {}\">{}</td>", i < numbers.size() && numbers[i] ? "n" : "",
                      ClassOf(cell.mark), EscapeHtml(cell.text));
    }
    body_ += "</tr>\n";
  }
  body_ += "</table></div>\n";
}

void Page::AddCharts(const std::vector<Chart>& charts) {
  body_ += "<div class=\"charts\">\n";
  for (const Chart& chart : charts) {
    std::string keys;
    for (size_t i = 0; i < chart.series.size(); ++i) {
      keys += fmt::format("<i style=\"background:var(--p{})\"></i>{}", i % 6,
                          EscapeHtml(chart.series[i].name));
    }
    body_ += fmt::format(
        "<figure><figcaption>{}<span>{}</span></figcaption>{}<div "
        "class=\"keys\">{}</div></figure>\n",
        EscapeHtml(chart.title), EscapeHtml(chart.note), ChartSvg(chart), keys);
  }
  body_ += "</div>\n";
}

std::string Page::Html() const {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
      "<title>{}</title><style>{}</style></head>\n<body><main>\n{}</main></body></html>\n",
      title_, kPageStyle, body_);
}

}  // namespace fathom::client
