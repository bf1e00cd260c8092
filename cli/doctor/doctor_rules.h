// cli/doctor/doctor_rules.h: what `fathom doctor` finds in the facts of a machine. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cli/doctor/facts.h"

namespace fathom::client {

// kNote: worth knowing. kWarning: it works, but worse than it could. kError: a start would fail.
enum class Level { kOk, kNote, kWarning, kError };
const char* NameOf(Level level);  // "ok", "note", "warning", "error".

struct Finding {
  std::string check;  // The subject: "driver", "descriptors", "port 8001".
  Level level = Level::kOk;
  std::string found;
  std::string needed;  // "": nothing.
  std::string fix;     // A command or a flag; empty only for ok and for some notes.
};

// In the order of the subjects, with those that are fine. Every warning and error has a fix.
std::vector<Finding> Diagnosis(const DoctorFacts& facts, const DoctorWish& wish);

// The parts of Diagnosis: the GPUs, their driver and NCCL; limits, memory and the kernel; ports,
// the clock and the environment.
void AddGpuFindings(const DoctorFacts& facts, const DoctorWish& wish, std::vector<Finding>* all);
void AddHostFindings(const DoctorFacts& facts, const DoctorWish& wish, std::vector<Finding>* all);
void AddPlaceFindings(const DoctorFacts& facts, std::vector<Finding>* all);

// 0, or 71 if one of them is an error.
int ExitCodeOf(const std::vector<Finding>& findings);

std::string ToText(const std::vector<Finding>& findings);
nlohmann::ordered_json ToJson(const std::vector<Finding>& findings);

}  // namespace fathom::client
