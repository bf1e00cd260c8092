// rpc/health.h: grpc.health.v1 for rpc/server.h. Watch needs no thread for each watching client.
// Thread: any; one mutex guards the watchers.
#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "rpc/call.h"

namespace fathom::rpc {

class Health {
 public:
  explicit Health(size_t watchers_max);
  ~Health();

  void AddService(const std::string& service) { services_.insert(service); }
  // Also tells the watching clients.
  void SetServing(bool serving);

  void Check(const std::shared_ptr<Call>& call, const grpc::ByteBuffer& request);
  // RESOURCE_EXHAUSTED if there are too many watching clients.
  void Watch(const std::shared_ptr<Call>& call, const grpc::ByteBuffer& request);

 private:
  class Watcher;
  bool Knows(const std::string& service) const;

  const size_t watchers_max_;
  std::set<std::string> services_{""};

  std::mutex mutex_;  // Guards what follows.
  bool serving_ = false;
  std::list<std::shared_ptr<Watcher>> watchers_;
};

}  // namespace fathom::rpc
