// Vectors of LANES values, loaded and stored whole or in part, and the memory that a call works in.

#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

namespace {

// The instruction set's vectors, and the rows of a register tile: its sums fill 28 of 32 or 12 of 16 registers.
#if defined(__AVX512F__)
constexpr int VECTOR_LANES = 16, TILE_ROWS = 14;
#elif defined(__AVX__)
constexpr int VECTOR_LANES = 8, TILE_ROWS = 6;
#else
constexpr int VECTOR_LANES = 4, TILE_ROWS = 6;
#endif

// Transforms of few channels take half a vector.
constexpr int NARROW_LANES = VECTOR_LANES > 4 ? VECTOR_LANES / 2 : VECTOR_LANES;

template <int LANES, typename T>
struct VectorType {
  typedef T type __attribute__((vector_size(LANES * sizeof(T))));
};

template <int LANES, typename T = float>
using Vector = typename VectorType<LANES, T>::type;

template <int LANES, typename T>
inline Vector<LANES, T> load(const T* from, int64_t count) {
  Vector<LANES, T> value{};
  if (count >= LANES)
    std::memcpy(&value, from, LANES * sizeof(T));
  else if (count == LANES / 2)
    std::memcpy(&value, from, LANES / 2 * sizeof(T));
  else
    for (int64_t i = 0; i < count; ++i) value[i] = from[i];
  return value;
}

template <int LANES, typename T>
inline void store(Vector<LANES, T> value, T* to, int64_t count) {
  if (count >= LANES)
    std::memcpy(to, &value, LANES * sizeof(T));
  else if (count == LANES / 2)
    std::memcpy(to, &value, LANES / 2 * sizeof(T));
  else
    for (int64_t i = 0; i < count; ++i) to[i] = value[i];
}

// NaN stays NaN.
template <typename V>
inline V relu(V value) {
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
inline void deinterleave(V low, V high, V& a, V& b, std::integer_sequence<int, I...>) {
  a = __builtin_shufflevector(low, high, (2 * I)...);
  b = __builtin_shufflevector(low, high, (2 * I + 1)...);
}

// LANES vectors as a matrix: interleaving its halves rotates the bits of all indices by one.
template <int LANES>
inline void transpose(Vector<LANES>* rows) {
  Vector<LANES> rotated[LANES];
  for (int bits = 1; bits < LANES; bits *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < LANES / 2; ++i)
      interleave<LANES>(rows[i], rows[i + LANES / 2], rotated[2 * i], rotated[2 * i + 1],
                        std::make_integer_sequence<int, LANES>{});
    std::copy_n(rotated, LANES, rows);
  }
}

// malloc returns so much memory to the system after each call, and page faults cost less with huge pages.
inline void advise_huge_pages(void* memory, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr int64_t NOT_KEPT = int64_t(32) << 20, PAGE = int64_t(2) << 20;
  if (bytes < NOT_KEPT) return;
  void* first = memory;
  size_t left = bytes;
  if (std::align(PAGE, PAGE, first, left)) madvise(first, left, MADV_HUGEPAGE);
#endif
}

constexpr int64_t ALIGNMENT = 64;

// Hands out aligned arena of a memory; without one it only counts them.
struct Arena {
  char* start;
  int64_t used = 0;

  template <typename T = float>
  T* take(int64_t values) {
    T* piece = reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(start) + used);
    used += (values * int64_t(sizeof(T)) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return piece;
  }
};

struct KeptMemory {
  char* start = nullptr;
  int64_t size = 0;

  ~KeptMemory() { release(); }
  void release() {
    std::free(start);
    start = nullptr;
    size = 0;
  }
};

// The memory of one call, for all its threads: allocated before they start, since an exception cannot leave a parallel
// region. Small ones stay for the calling thread's next call, because page faults cost more than what is computed.
class Workspace {
 public:
  Workspace(int64_t shared, int64_t each, int threads) : kept_(of_this_thread()), shared_(shared), each_(each) {
    const int64_t bytes = shared + each * threads;
    if (bytes <= kept_.size) return;
    kept_.release();
    kept_.start = static_cast<char*>(std::aligned_alloc(ALIGNMENT, bytes));
    if (!kept_.start) throw std::bad_alloc();
    kept_.size = bytes;
    advise_huge_pages(kept_.start, bytes);
  }
  Workspace(const Workspace&) = delete;
  ~Workspace() {
    if (kept_.size > MOST_KEPT) kept_.release();
  }

  Arena shared() const { return {kept_.start}; }
  Arena of_thread(int rank) const { return {kept_.start + shared_ + each_ * rank}; }

 private:
  static constexpr int64_t MOST_KEPT = int64_t(128) << 20;

  static KeptMemory& of_this_thread() {
    static thread_local KeptMemory memory;
    return memory;
  }

  KeptMemory& kept_;
  const int64_t shared_, each_;
};

}  // namespace
