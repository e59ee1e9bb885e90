export interface Router {
  back(): void;
}
export const router: Router;
export function useRouter(): Router;
