// text/byte_trie.h: a set of strings, walked byte by byte.
// Thread: constant after the last Insert.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "common/check.h"

namespace fathom {

class ByteTrie {
 public:
  static constexpr int32_t kRoot = 0;

  // REQUIRES: value >= 0, key not empty. Returns false for a key that already exists; its value
  // stays.
  bool Insert(std::string_view key, int32_t value) {
    FATHOM_CHECK(value >= 0 && !key.empty());
    int32_t node = kRoot;
    for (char byte : key) {
      int32_t child = Child(node, byte);
      if (child < 0) {
        child = static_cast<int32_t>(nodes_.size());
        nodes_[node].edges.push_back({byte, child});
        nodes_.emplace_back();
      }
      node = child;
    }
    if (nodes_[node].value >= 0) return false;
    nodes_[node].value = value;
    return true;
  }

  // The child of `node` for `byte`, or -1.
  int32_t Child(int32_t node, char byte) const {
    for (const Edge& edge : nodes_[node].edges) {
      if (edge.byte == byte) return edge.node;
    }
    return -1;
  }

  // The value of the key that ends at `node`, or -1.
  int32_t Value(int32_t node) const { return nodes_[node].value; }

 private:
  struct Edge {
    char byte;
    int32_t node;
  };
  struct Node {
    int32_t value = -1;
    std::vector<Edge> edges;
  };
  std::vector<Node> nodes_ = std::vector<Node>(1);
};

}  // namespace fathom
