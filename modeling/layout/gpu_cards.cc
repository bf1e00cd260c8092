#include "modeling/layout/gpu_cards.h"

namespace fathom {
namespace {

constexpr int64_t Mib(int64_t mib) { return mib << 20; }

// Measured by us on cards of this kind: reading, and GEMMs of 8,192 x 8,192 x 8,192. The other
// rates are from data sheets; a vendor's bandwidth is about 1.08 times what a kernel reaches.
constexpr GpuCard kCards[] = {
    {"h200", "H200", Mib(143'150), 4.53, 790, true},
    {"h100-nvl", "H100 NVL", Mib(95'300), 3.9, 835, false},
    {"h100-pcie", "H100 PCIe", Mib(81'080), 2.0, 756, false},
    {"h100", "H100", Mib(81'080), 3.10, 781, true},
    {"a100-40", "A100-SXM4-40GB", Mib(40'330), 1.555, 312, false},
    {"a100-80", "A100", Mib(81'050), 2.039, 312, false},
    {"l40s", "L40S", Mib(45'470), 0.864, 362, false},
    {"l4", "L4", Mib(22'570), 0.300, 121, false},
};

}  // namespace

std::span<const GpuCard> GpuCards() { return kCards; }

const GpuCard* FindGpuCard(std::string_view name) {
  for (const GpuCard& card : kCards) {
    if (card.name == name) return &card;
  }
  return nullptr;
}

const GpuCard* GpuCardOfDevice(std::string_view driver_name) {
  for (const GpuCard& card : kCards) {
    const size_t at = driver_name.find(card.driver_name);
    if (at == std::string_view::npos) continue;
    const size_t end = at + card.driver_name.size();  // "L4" is not in "L40".
    if (end == driver_name.size() || driver_name[end] == ' ' || driver_name[end] == '-') {
      return &card;
    }
  }
  return nullptr;
}

void SetCard(const GpuCard& card, CudaMemoryRequest* request) {
  constexpr double kHot = 0.9;
  request->matrix_tflops = kHot * card.matrix_tflops;
  request->read_tbs = card.read_tbs;
}

std::string GpuCardNames() {
  std::string names;
  for (const GpuCard& card : kCards) {
    if (!names.empty()) names += ", ";
    names += card.name;
  }
  return names;
}

}  // namespace fathom
