import type { ReactElement, ReactNode } from "react";

export type AppStateStatus = "active" | "background" | "inactive" | "unknown" | "extension";
export const AppState: {
  currentState: AppStateStatus;
  addEventListener(type: "change", hear: (state: AppStateStatus) => void): { remove(): void };
};
export const Alert: { alert(title: string, message?: string): void };
export function Text(props: { children?: ReactNode }): ReactElement;
export function FlatList<Item>(props: {
  data: ArrayLike<Item> | null | undefined;
  keyExtractor?: (item: Item, index: number) => string;
  renderItem: (info: { item: Item; index: number }) => ReactElement | null;
}): ReactElement;
