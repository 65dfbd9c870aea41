// Vectors of LANES values, loaded and stored whole or in part, and memory that is kept from call to call.

#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

namespace {

template <typename T, int LANES>
struct Vector {
  typedef T type __attribute__((vector_size(LANES * sizeof(T))));
};

template <typename T, int LANES>
inline typename Vector<T, LANES>::type load(const T* from, int64_t count) {
  typename Vector<T, LANES>::type value{};
  if (count >= LANES)
    std::memcpy(&value, from, LANES * sizeof(T));
  else if (count == LANES / 2)
    std::memcpy(&value, from, LANES / 2 * sizeof(T));
  else
    for (int64_t i = 0; i < count; ++i) value[i] = from[i];
  return value;
}

template <typename T, int LANES>
inline void store(typename Vector<T, LANES>::type value, T* to, int64_t count) {
  if (count >= LANES)
    std::memcpy(to, &value, LANES * sizeof(T));
  else if (count == LANES / 2)
    std::memcpy(to, &value, LANES / 2 * sizeof(T));
  else
    for (int64_t i = 0; i < count; ++i) to[i] = value[i];
}

// A ReLU: what is no number stays so.
template <typename V>
inline V rectified(V value) {
  return value < V{} ? V{} : value;
}

// a0 b0 a1 b1 ..., its first and its second half.
template <int LANES, typename V, int... I>
inline void interleave(V a, V b, V& low, V& high, std::integer_sequence<int, I...>) {
  low = __builtin_shufflevector(a, b, (I / 2 + I % 2 * LANES)...);
  high = __builtin_shufflevector(a, b, (LANES / 2 + I / 2 + I % 2 * LANES)...);
}

// Undoes it.
template <int LANES, typename V, int... I>
inline void separate(V low, V high, V& a, V& b, std::integer_sequence<int, I...>) {
  a = __builtin_shufflevector(low, high, (2 * I)...);
  b = __builtin_shufflevector(low, high, (2 * I + 1)...);
}

// LANES vectors as a matrix: interleaving its halves turns the bits of all places by one.
template <typename T, int LANES>
inline void transpose(typename Vector<T, LANES>::type* rows) {
  typename Vector<T, LANES>::type turned[LANES];
  for (int bits = 1; bits < LANES; bits *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < LANES / 2; ++i)
      interleave<LANES>(rows[i], rows[i + LANES / 2], turned[2 * i], turned[2 * i + 1],
                        std::make_integer_sequence<int, LANES>{});
    std::copy_n(turned, LANES, rows);
  }
}

// So much memory malloc does not keep from call to call. Fresh pages each cost a way into the kernel when they are
// first written: large ones are fewer.
inline void take_large_pages(void* memory, int64_t bytes) {
  constexpr int64_t NOT_KEPT = int64_t(32) << 20, PAGE = int64_t(2) << 20;
  if (bytes < NOT_KEPT) return;
  void* first = memory;
  size_t left = bytes;
  if (std::align(PAGE, PAGE, first, left)) madvise(first, left, MADV_HUGEPAGE);
}

// Aligned memory of one thread. It stays for the thread's next call, unless it is large: fresh pages cost more
// than what is computed on them.
class Scratch {
 public:
  static constexpr int64_t ALIGNMENT = 64, KEPT = int64_t(64) << 20;

  ~Scratch() { std::free(memory_); }

  char* of(int64_t bytes) {
    if (bytes > size_) {
      std::free(memory_);
      size_ = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
      memory_ = static_cast<char*>(std::aligned_alloc(ALIGNMENT, size_));
      if (!memory_) throw std::bad_alloc();
      take_large_pages(memory_, size_);
    }
    return memory_;
  }

  void shrink() {
    if (size_ <= KEPT) return;
    std::free(memory_);
    memory_ = nullptr;
    size_ = 0;
  }

 private:
  char* memory_ = nullptr;
  int64_t size_ = 0;
};

// Hands out aligned pieces of a memory; of none, it only counts them.
struct Pieces {
  char* start;
  int64_t used = 0;

  template <typename T>
  T* take(int64_t values) {
    T* piece = reinterpret_cast<T*>(start + used);
    used += (values * int64_t(sizeof(T)) + Scratch::ALIGNMENT - 1) / Scratch::ALIGNMENT * Scratch::ALIGNMENT;
    return piece;
  }
};

}  // namespace
