#include "cli/doctor/doctor_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/exit_codes.h"

namespace fathom::client {

const char* NameOf(Level level) {
  switch (level) {
    case Level::kOk:
      return "ok";
    case Level::kNote:
      return "note";
    case Level::kWarning:
      return "warning";
    case Level::kError:
      break;
  }
  return "error";
}

std::vector<Finding> Diagnosis(const DoctorFacts& facts, const DoctorWish& wish) {
  std::vector<Finding> all;
  AddGpuFindings(facts, wish, &all);
  AddHostFindings(facts, wish, &all);
  AddPlaceFindings(facts, &all);
  return all;
}

int ExitCodeOf(const std::vector<Finding>& findings) {
  return std::ranges::any_of(findings, [](const Finding& f) { return f.level == Level::kError; })
             ? kExitResources
             : kExitOk;
}

std::string ToText(const std::vector<Finding>& findings) {
  std::string text;
  int counts[4] = {};
  for (const Finding& finding : findings) {
    ++counts[static_cast<int>(finding.level)];
    text += fmt::format("{:<8} {:<16} {}\n", NameOf(finding.level), finding.check, finding.found);
    if (finding.level == Level::kOk) continue;
    if (!finding.needed.empty()) text += fmt::format("{:<25} needed: {}\n", "", finding.needed);
    if (!finding.fix.empty()) text += fmt::format("{:<25} fix:    {}\n", "", finding.fix);
  }
  return text + fmt::format("{} ok, {} notes, {} warnings, {} errors\n", counts[0], counts[1],
                            counts[2], counts[3]);
}

nlohmann::ordered_json ToJson(const std::vector<Finding>& findings) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Finding& finding : findings) {
    list.push_back({{"check", finding.check},
                    {"level", NameOf(finding.level)},
                    {"found", finding.found},
                    {"needed", finding.needed},
                    {"fix", finding.fix}});
  }
  return {{"ok", ExitCodeOf(findings) == kExitOk}, {"findings", std::move(list)}};
}

}  // namespace fathom::client
